"""`opsmesh why` and `why-not`, and how their answers are written."""
