// Readers of events with @azure/event-hubs.
'use strict';

const { EventHubConsumerClient, earliestEventPosition } = require('@azure/event-hubs');
const WebSocket = require('ws');

const readers = new Map();

const find = ({ reader }) => readers.get(reader);

module.exports = {
  create({ reader, connectionString, transport, group }) {
    const options = transport === 'WebSocket' ? { webSocketOptions: { webSocket: WebSocket } } : {};
    options.retryOptions = { maxRetries: 0 };
    const client = new EventHubConsumerClient(group ?? '$Default', connectionString, options);
    readers.set(reader, { client, subscriptions: [] });
  },

  async close(args) {
    const { client, subscriptions } = find(args);
    for (const each of subscriptions) await each.close();
    await client.close();
    readers.delete(args.reader);
  },

  async hub(args) {
    const { createdOn, ...about } = await find(args).client.getEventHubProperties();
    return about;
  },

  async partition({ partition, ...args }) {
    try {
      return await find(args).client.getPartitionProperties(partition);
    } catch (error) {
      return { code: error.code, message: error.message };
    }
  },

  subscribe({ partition, ownerLevel, start, ...args }, emit) {
    const handlers = {
      processEvents: async (events, { lastEnqueuedEventProperties }) => {
        for (const { body, ...event } of events) {
          const text = Buffer.isBuffer(body) ? body.toString() : body;
          const last = lastEnqueuedEventProperties.sequenceNumber;
          emit(args.reader, 'event', { ...event, body: text, last });
        }
      },
      processError: async ({ code, message }) => emit(args.reader, 'error', { code, message }),
    };
    const options = {
      startPosition: start ?? earliestEventPosition,
      trackLastEnqueuedEventProperties: true,
      ...(ownerLevel === undefined ? {} : { ownerLevel }),
    };
    const { client, subscriptions } = find(args);
    subscriptions.push(
      partition === undefined
        ? client.subscribe(handlers, options)
        : client.subscribe(partition, handlers, options),
    );
  },
};
