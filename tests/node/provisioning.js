// The Device Provisioning Service with azure-iot-provisioning-service and -device.
'use strict';

const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Amqp, AmqpWs } = require('azure-iot-provisioning-device-amqp');
const { Http } = require('azure-iot-provisioning-device-http');
const { Mqtt, MqttWs } = require('azure-iot-provisioning-device-mqtt');
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');

const TRANSPORTS = { Amqp, AmqpWs, Http, Mqtt, MqttWs };

const rows = async (query) => {
  const found = [];
  do {
    const { result } = await new Promise((resolve, reject) =>
      query.next((error, result) => (error ? reject(error) : resolve({ result }))),
    );
    found.push(...result);
  } while (query.hasMoreResults);
  return found;
};

module.exports = {
  // Calls a method of the service client, and returns the body of its answer.
  async service({ connectionString, method, args }) {
    const client = ProvisioningServiceClient.fromConnectionString(connectionString);
    const answer = await client[method](...args);
    return answer?.responseBody ?? answer ?? null;
  },

  // The SDK never settles the promise of this call: it needs a callback.
  bulk({ connectionString, args: [operation] }) {
    const client = ProvisioningServiceClient.fromConnectionString(connectionString);
    return new Promise((resolve, reject) =>
      client.runBulkEnrollmentOperation(operation, (error, result) =>
        error ? reject(error) : resolve(result),
      ),
    );
  },

  async query({ connectionString, method, args }) {
    const client = ProvisioningServiceClient.fromConnectionString(connectionString);
    return rows(client[method](...args));
  },

  async register({ host, idScope, id, key, x509, transport, payload }) {
    const security = x509
      ? new X509Security(id, x509)
      : new SymmetricKeySecurityClient(id, key);
    const client = ProvisioningDeviceClient.create(host, idScope, new TRANSPORTS[transport](), security);
    if (payload) client.setProvisioningPayload(payload);
    const result = await client.register();
    return { status: result.status, hub: result.assignedHub, device: result.deviceId, payload: result.payload ?? null };
  },
};
