"""Guards: what keeps the layout, the wheel and the documents true."""
