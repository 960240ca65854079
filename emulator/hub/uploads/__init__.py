"""File upload: devices put files into a storage, and services are told of them."""
