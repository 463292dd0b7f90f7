"""The report, the page of results, and the sentences in them."""
