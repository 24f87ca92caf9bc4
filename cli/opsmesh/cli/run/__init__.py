"""`opsmesh run`: what profiles did."""
