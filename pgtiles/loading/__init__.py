"""Files into tables, all of a file or nothing."""
