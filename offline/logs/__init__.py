"""Host logs → catalogue and user histories, in DuckDB SQL."""
