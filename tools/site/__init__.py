"""Programs that write the reference pages of the documentation site from the code (`make site`)."""
