"""jaxad's own backbone families: each module registers one of its name, and no other place lists them."""
