"""The frame of every page: boot, navigation, address, presenter mode."""
