"""The head that devices come in by: MQTT 3.1.1 on amqtt."""
