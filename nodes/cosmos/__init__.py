"""Cosmos through NVIDIA's NIM container: families (who takes which fields), client (the HTTP side), nodes."""
