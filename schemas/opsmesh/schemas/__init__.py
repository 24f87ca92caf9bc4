"""What an event is: the envelope, the topics and their payloads, redaction. No I/O."""
