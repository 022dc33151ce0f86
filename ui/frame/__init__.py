"""What all pages have in common.

Read page (the frame itself, and what a page needs before it can work), then navigation (sidebar and foot), then address (what a link asks
for), presenter (pages before a room) and resume (the way back after a reload).
"""
