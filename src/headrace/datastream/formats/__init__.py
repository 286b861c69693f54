"""Record formats, where PyFlink has them."""
