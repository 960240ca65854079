// Receive feedback: what became of the cloud-to-device messages. Ctrl-C stops it.
'use strict';

const { Client } = require('azure-iothub');

function fail(error) {
  console.error(error.message);
  process.exit(1);
}

const connectionString = process.env.IOTHUB_CONNECTION_STRING;
if (!connectionString) fail(new Error('Set IOTHUB_CONNECTION_STRING.'));
const client = Client.fromConnectionString(connectionString);
client.getFeedbackReceiver((error, receiver) => {
  if (error) fail(error);
  receiver.on('errorReceived', fail);
  receiver.on('message', (batch) => {
    for (const record of JSON.parse(batch.data)) {
      console.log(`${record.deviceId}, ${record.originalMessageId}: ${record.statusCode}`);
    }
    receiver.complete(batch, (failure) => failure && fail(failure));
  });
  console.log('Waiting for feedback. Ctrl-C stops it.');
});
