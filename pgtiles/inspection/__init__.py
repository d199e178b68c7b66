"""What is known of tables and tiles: checks, statistics, time, provenance."""
