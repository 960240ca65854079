"""The services over identities and twins, and the documents that they return."""
