"""`opsmesh dlq`: dead letters, found, grouped, sent again, given up."""
