// Devices with a TPM: in software here, or swtpm with azure-iot-security-tpm.
'use strict';

const crypto = require('node:crypto');
const net = require('node:net');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Amqp, AmqpWs } = require('azure-iot-provisioning-device-amqp');
const { Http } = require('azure-iot-provisioning-device-http');

const TRANSPORTS = { Amqp, AmqpWs, Http };
const SHA256 = Buffer.from('000b', 'hex');
const EK_POLICY = '837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa';

const sha256 = (...parts) => crypto.createHash('sha256').update(Buffer.concat(parts)).digest();
const hmac = (key, ...parts) =>
  crypto.createHmac('sha256', key).update(Buffer.concat(parts)).digest();
const sized = (data) => Buffer.concat([Buffer.from([data.length >> 8, data.length & 0xff]), data]);
const unsized = (data) => data.subarray(2, 2 + data.readUInt16BE());
const kdfa = (key, label, context, bits) =>
  hmac(key, Buffer.from([0, 0, 0, 1]), Buffer.from(`${label}\0`), context,
    Buffer.from([0, 0, bits >> 8, bits & 0xff])).subarray(0, bits / 8);
const decrypt = (key, data) => {
  const cipher = crypto.createDecipheriv('aes-128-cfb', key, Buffer.alloc(16));
  return Buffer.concat([cipher.update(data), cipher.final()]);
};

// The security client of a TPM in software (TPM 2.0 Library, part 1: sections 22 to 24).
class SoftwareTpm {
  constructor(id) {
    this.id = id;
    [this.ek, this.srk] = [0, 1].map(() => crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }));
    this.ekArea = this.area(this.ek, '000300b2', EK_POLICY);
    this.srkArea = this.area(this.srk, '00030472', '');
  }
  area({ publicKey }, attributes, policy) {
    const n = Buffer.from(publicKey.export({ format: 'jwk' }).n, 'base64url');
    const head = Buffer.concat([Buffer.from(`0001000b${attributes}`, 'hex'), sized(Buffer.from(policy, 'hex'))]);
    return Buffer.concat([head, Buffer.from('0006008000430010080000000000', 'hex'), sized(n)]);
  }
  unprotect({ privateKey }, label, secret, data, name) {
    const oaepLabel = Buffer.from(`${label}\0`);
    const seed = crypto.privateDecrypt({ key: privateKey, oaepHash: 'sha256', oaepLabel }, secret);
    const integrity = unsized(data);
    const encrypted = data.subarray(2 + integrity.length);
    const expected = hmac(kdfa(seed, 'INTEGRITY', Buffer.alloc(0), 256), encrypted, name);
    if (!integrity.equals(expected)) throw new Error('integrity');
    return decrypt(kdfa(seed, 'STORAGE', name, 128), encrypted);
  }
  getRegistrationId(callback) {
    callback(null, this.id);
  }
  getEndorsementKey(callback) {
    callback(null, sized(this.ekArea));
  }
  getStorageRootKey(callback) {
    callback(null, sized(this.srkArea));
  }
  activateIdentityKey(blob, callback) {
    const blocks = [];
    for (let rest = blob; rest.length; rest = rest.subarray(2 + blocks.at(-1).length)) blocks.push(unsized(rest));
    const [credential, secret, duplicate, wrapSecret, area] = blocks;
    const rootName = Buffer.concat([SHA256, sha256(this.srkArea)]);
    const innerKey = unsized(this.unprotect(this.ek, 'IDENTITY', secret, credential, rootName));
    const name = Buffer.concat([SHA256, sha256(area)]);
    const inner = decrypt(innerKey, this.unprotect(this.srk, 'DUPLICATE', wrapSecret, duplicate, name));
    const sensitive = inner.subarray(34);
    if (!unsized(inner).equals(sha256(sensitive, name))) throw new Error('inner integrity');
    const fields = unsized(sensitive);
    const seed = unsized(fields.subarray(4));
    this.key = unsized(fields.subarray(6 + seed.length));
    callback(null);
  }
  signWithIdentity(data, callback) {
    callback(null, hmac(this.key, data));
  }
}

// The SDK's own security client, for a TPM that listens on a port.
const simulated = (id, port) => {
  const tss = require('tss.js');
  const { TpmSecurityClient } = require('azure-iot-security-tpm');
  const tpm = new tss.Tpm(false);
  let socket;
  tpm.device = {
    connect(then) {
      socket = net.connect(port, '127.0.0.1', () => then(null));
      return null;
    },
    dispatchCommand(command, then) {
      let answer = Buffer.alloc(0);
      socket.removeAllListeners('data');
      socket.on('data', (data) => {
        answer = Buffer.concat([answer, data]);
        if (answer.length >= 6 && answer.length >= answer.readUInt32BE(2)) setImmediate(then, null, answer);
      });
      socket.write(command);
    },
    close() {
      socket.end();
    },
  };
  return new TpmSecurityClient(id, tpm);
};

const clients = {};
const promised = (client, method, ...args) =>
  new Promise((resolve, reject) =>
    client[method](...args, (error, value) => (error ? reject(error) : resolve(value))));

module.exports = {
  // Returns the public keys of the TPM of a device, for its enrollment.
  async open({ id, port }) {
    clients[id] = port ? simulated(id, port) : new SoftwareTpm(id);
    const [endorsementKey, storageRootKey] = [
      await promised(clients[id], 'getEndorsementKey'),
      await promised(clients[id], 'getStorageRootKey'),
    ].map((key) => key.toString('base64'));
    return { endorsementKey, storageRootKey };
  },

  async register({ host, idScope, id, transport }) {
    const client = ProvisioningDeviceClient.create(host, idScope, new TRANSPORTS[transport](), clients[id]);
    // Its promise has the state of the operation; so has its callback.
    const { registrationState } = await client.register();
    return { status: registrationState.status, hub: registrationState.assignedHub, device: registrationState.deviceId };
  },

  // Signs a token for the hub with the key that the registration has left in the TPM.
  async token({ id, resource }) {
    const audience = encodeURIComponent(resource);
    const expiry = Math.floor(Date.now() / 1000) + 3600;
    const signature = await promised(clients[id], 'signWithIdentity', Buffer.from(`${audience}\n${expiry}`));
    const text = encodeURIComponent(signature.toString('base64'));
    return `SharedAccessSignature sr=${audience}&sig=${text}&se=${expiry}`;
  },
};
