"""The CAs that sign the certificates of devices."""
