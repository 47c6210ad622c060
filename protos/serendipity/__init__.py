"""A serendipity recall channel: contract, client, online channel and offline builders."""
