"""Where the time goes: named ranges, and the table of them."""
