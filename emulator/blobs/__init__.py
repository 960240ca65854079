"""The blob service: the files of devices come in here, in the REST API of Azure Storage."""
