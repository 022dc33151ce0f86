"""What a family's blocks are like: the table, what is recognised without it, and the measurement that confirms either."""
