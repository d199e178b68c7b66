"""The way to the server: connections, transactions, COPY, retries, the catalog, the gate for the user's SQL, a local server."""
