"""`opsmesh hub`, `join`, `leave` and `hosts`: many hosts."""
