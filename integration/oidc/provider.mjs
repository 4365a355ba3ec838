// An identity provider for tests: oidc-provider as it is, over plain HTTP on a loopback port, told what to be by one
// JSON document (its first argument). What it issues and its keys lie in files of its folder, so that it is the same
// provider when it is started again; its accounts do too, and are read anew each time.
import { createRequire } from 'node:module';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { pathToFileURL } from 'node:url';
import { join } from 'node:path';

const told = JSON.parse(process.argv[2]);
const { Provider } = await import(pathToFileURL(createRequire(told.modules).resolve('oidc-provider')));

const path = (name) => join(told.folder, name);
const read = (name, otherwise) => (existsSync(path(name)) ? JSON.parse(readFileSync(path(name))) : otherwise());
function write(name, value) {
  writeFileSync(path(`${name}.new`), JSON.stringify(value));
  renameSync(path(`${name}.new`), path(name));
}

// The keys: one RSA, one P-256. Whoever wants others takes the file away and starts it again.
const keys = read('keys.json', () => {
  const jwk = (pair, more) => ({ ...pair.privateKey.export({ format: 'jwk' }), use: 'sig', kid: randomUUID(), ...more });
  return [
    jwk(generateKeyPairSync('rsa', { modulusLength: 2048 }), { alg: 'RS256' }),
    jwk(generateKeyPairSync('ec', { namedCurve: 'P-256' }), { alg: 'ES256' }),
  ];
});
write('keys.json', keys);

// Everything that it has issued, in one file.
const issued = read('issued.json', () => ({}));
const keep = () => write('issued.json', issued);
class Stored {
  constructor(model) {
    this.model = model;
  }
  get all() {
    return (issued[this.model] ??= {});
  }
  async upsert(id, payload) {
    this.all[id] = payload;
    keep();
  }
  async find(id) {
    return this.all[id];
  }
  async findByUserCode(code) {
    return Object.values(this.all).find((one) => one.userCode === code);
  }
  async findByUid(uid) {
    return Object.values(this.all).find((one) => one.uid === uid);
  }
  async consume(id) {
    this.all[id].consumed = Math.floor(Date.now() / 1000);
    keep();
  }
  async destroy(id) {
    delete this.all[id];
    keep();
  }
  async revokeByGrantId(grant) {
    for (const model of Object.values(issued)) {
      for (const [id, one] of Object.entries(model)) if (one.grantId === grant) delete model[id];
    }
    keep();
  }
}

const accounts = () => read('accounts.json', () => ({}));
const device = 'urn:ietf:params:oauth:grant-type:device_code';
const provider = new Provider(told.issuer, {
  adapter: Stored,
  jwks: { keys },
  clients: [
    {
      client_id: 'comity-device',
      token_endpoint_auth_method: 'none',
      application_type: 'native',
      grant_types: [device, 'refresh_token', 'authorization_code'],
      response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/cb'],
    },
    {
      client_id: 'comity-web',
      client_secret: 'a-secret-of-the-provider',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      redirect_uris: ['https://127.0.0.1/oidc/callback'],
    },
    {
      // Somebody else's: what is issued to it is not for us.
      client_id: 'another-application',
      token_endpoint_auth_method: 'none',
      application_type: 'native',
      grant_types: [device, 'refresh_token', 'authorization_code'],
      response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/cb'],
    },
  ],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'groups'] },
  conformIdTokenClaims: false,
  features: {
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true, charset: 'digits', mask: '****-****' },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: told.jwt !== null,
      defaultResource: () => told.jwt,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: 'openid email profile offline_access',
        audience: told.jwt,
        accessTokenTTL: told.access,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: told.algorithm } },
      }),
    },
  },
  // What an account says about itself, in the tokens that are for others to read.
  extraTokenClaims: (ctx, token) => {
    const account = accounts()[token.accountId] ?? {};
    const { email, email_verified, groups } = account;
    return told.jwt === null || told.bare ? undefined : { email, email_verified, groups };
  },
  ttl: {
    AccessToken: told.access,
    DeviceCode: told.device,
    RefreshToken: told.refresh,
    Grant: 86400,
    IdToken: 3600,
    Interaction: 3600,
    Session: 86400,
  },
  rotateRefreshToken: true,
  findAccount: (ctx, id) => {
    const account = accounts()[id];
    return account && { accountId: id, claims: () => ({ sub: id, ...account }) };
  },
});
provider.on('server_error', (ctx, error) => console.error(error));
provider.listen(told.port, '127.0.0.1', () => console.log(`listening as ${told.issuer}`));
for (const end of ['SIGTERM', 'SIGINT']) process.on(end, () => process.exit(0));
