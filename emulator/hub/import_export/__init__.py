"""Import and export jobs: identities and twins, from and to a blob container."""
