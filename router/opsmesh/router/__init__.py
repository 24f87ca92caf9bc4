"""Everything about moving an event: streams, publishing, the spool, deciding, consuming, replay."""
