"""Galleries that are searched by description: Milvus, the application, the page for a browser."""
