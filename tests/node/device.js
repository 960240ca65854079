// Devices and modules with azure-iot-device, over AMQP.
'use strict';

const fs = require('node:fs');

const { Client, Message, ModuleClient } = require('azure-iot-device');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');

const TRANSPORTS = { Amqp, AmqpWs };
const NO_RETRY = { shouldRetry: () => false, nextRetryTimeout: () => -1 };
const devices = new Map();

const find = ({ device }) => devices.get(device);

const text = (message) => ({
  body: message.data?.toString() ?? null,
  messageId: message.messageId ?? null,
  contentType: message.contentType ?? null,
  to: message.to ?? null,
  ack: message.ack ?? null,
  expiry: message.expiryTimeUtc ?? null,
  properties: Object.fromEntries(
    (message.properties?.propertyList ?? []).map(({ key, value }) => [key, value]),
  ),
});

module.exports = {
  // Makes a client; it does not retry, so that a refusal is an error at once.
  create({ device, connectionString, transport, x509, retries }, emit) {
    const type = connectionString.includes('ModuleId=') ? ModuleClient : Client;
    const client = type.fromConnectionString(connectionString, TRANSPORTS[transport]);
    if (!retries) client.setRetryPolicy(NO_RETRY);
    if (x509) client.setOptions(x509);
    client.on('error', (error) => emit(device, 'error', error.name));
    client.on('disconnect', (error) => emit(device, 'disconnect', error?.err?.name ?? null));
    devices.set(device, { client, messages: [], twin: null });
  },

  async open(args) {
    await find(args).client.open();
  },

  async close(args) {
    await find(args).client.close();
    devices.delete(args.device);
  },

  async send({ body, properties, system, ...args }) {
    const message = new Message(body);
    Object.assign(message, system);
    for (const [key, value] of Object.entries(properties ?? {})) message.properties.add(key, value);
    const result = await find(args).client.sendEvent(message);
    return result.constructor.name;
  },

  async sendBatch({ bodies, ...args }) {
    await find(args).client.sendEventBatch(bodies.map((body) => new Message(body)));
  },

  // Emits each cloud-to-device message, and keeps it for `settle`.
  receive(args, emit) {
    const device = find(args);
    device.client.on('message', (message) => {
      device.messages.push(message);
      emit(args.device, 'message', text(message));
    });
  },

  async settle({ outcome, ...args }) {
    const device = find(args);
    await device.client[outcome](device.messages.pop());
  },

  // Answers a direct method with its own payload.
  answer({ method, status, ...args }, emit) {
    find(args).client.onDeviceMethod(method, async (request, response) => {
      try {
        await response.send(status, { name: request.methodName, payload: request.payload ?? null });
        emit(args.device, 'answered', method);
      } catch (error) {
        emit(args.device, 'unanswered', error.name);
      }
    });
  },

  async twin(args) {
    const device = find(args);
    device.twin = await device.client.getTwin();
    const { desired, reported } = device.twin.properties;
    return { desired: { ...desired }, reported: { ...reported, update: undefined } };
  },

  desired(args, emit) {
    find(args).twin.on('properties.desired', (patch) => emit(args.device, 'desired', patch));
  },

  report({ patch, ...args }) {
    const { reported } = find(args).twin.properties;
    return new Promise((resolve, reject) =>
      reported.update(patch, (error) => (error ? reject(error) : resolve())),
    );
  },

  startUpload: ({ blob, ...args }) => find(args).client.getBlobSharedAccessSignature(blob),

  async endUpload({ correlationId, isSuccess, status, text, ...args }) {
    await find(args).client.notifyBlobUploadStatus(correlationId, isSuccess, status, text);
  },

  // Starts an upload, uploads a file with @azure/storage-blob, and reports the end.
  async uploadFile({ blob, file, ...args }) {
    const { size } = fs.statSync(file);
    await find(args).client.uploadToBlob(blob, fs.createReadStream(file), size);
  },

  async renew({ token, ...args }) {
    await find(args).client.updateSharedAccessSignature(token);
  },
};
