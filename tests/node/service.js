// Services with azure-iothub, over AMQP.
'use strict';

const { AmqpWs, Client } = require('azure-iothub');
const { Message } = require('azure-iot-common');

const services = new Map();

const find = ({ service }) => services.get(service);

// Emits the body of each message, and settles it: with the outcome of its turn, at first, and then
// with `complete`. The SDK accepts what is not settled when the handler returns.
async function receive(getReceiver, event, { outcomes, ...args }, emit) {
  const receiver = await new Promise((resolve, reject) =>
    find(args).client[getReceiver]((error, found) => (error ? reject(error) : resolve(found))),
  );
  receiver.on('errorReceived', (error) => emit(args.service, 'error', error.name));
  receiver.on('message', (message) => {
    const outcome = outcomes.shift() ?? 'complete';
    receiver[outcome](message, (error) => emit(args.service, outcome, error?.name ?? null));
    emit(args.service, event, JSON.parse(message.data.toString()));
  });
}

module.exports = {
  create({ service, connectionString, transport }) {
    const transports = transport === 'AmqpWs' ? [AmqpWs] : [];
    const client = Client.fromConnectionString(connectionString, ...transports);
    services.set(service, { client });
  },

  async open(args) {
    await find(args).client.open();
  },

  async close(args) {
    await find(args).client.close();
    services.delete(args.service);
  },

  async send({ device, body, properties, system, ...args }) {
    const message = new Message(body);
    Object.assign(message, system);
    for (const [key, value] of Object.entries(properties ?? {})) message.properties.add(key, value);
    await find(args).client.send(device, message);
  },

  receiveFeedback: (args, emit) => receive('getFeedbackReceiver', 'feedback', args, emit),

  receiveFiles: (args, emit) => receive('getFileNotificationReceiver', 'file', args, emit),
};
