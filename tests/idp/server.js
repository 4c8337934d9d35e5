// A certified OpenID provider with two accounts. It signs in whoever types a known user name: for tests on loopback alone.
//
// Besides, a program named `ci` gets tokens of its own, for the audience `gateway`.
//
// Environment: PORT (0: any), CLIENT_SECRET, REDIRECT_URIS and SIGNED_OUT_URIS (separated by spaces), BACK_CHANNEL_URI,
// and ACCESS_TOKEN_SECONDS. Prints `issuer URL` once it answers. `POST /people/NAME` with JSON changes what it says of somebody.
import { lookup } from 'node:dns';
import { createServer } from 'node:http';
import Provider, { interactionPolicy } from 'oidc-provider';

const PEOPLE = {
  alice: { name: 'Alice Example', email: 'alice@corp.example', groups: ['engineering', 'staff'] },
  bob: { name: 'Bob Example', email: 'bob@corp.example', groups: ['staff'] },
};

const words = (name) => (process.env[name] ?? '').split(' ').filter(Boolean);
const page = (body) => `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sign in</title></head><body>${body}</body></html>`;

function findAccount(_ctx, id) {
  const person = PEOPLE[id];
  if (!person) return undefined;
  return { accountId: id, claims: async () => ({ sub: id, email_verified: true, ...person }) };
}

// Everything that a client asks for is granted: the tests are about the gateway, not about consent.
async function loadExistingGrant(ctx) {
  const { client, session, provider, params } = ctx.oidc;
  const known = session.grantIdFor(client.clientId);
  if (known) return provider.Grant.find(known);
  const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
  grant.addOIDCScope(params.scope);
  await grant.save();
  return grant;
}

function configuration() {
  const policy = interactionPolicy.base();
  policy.get('consent').checks.clear();
  return {
    clients: [{
      client_id: 'pomerium',
      client_secret: process.env.CLIENT_SECRET,
      redirect_uris: words('REDIRECT_URIS'),
      post_logout_redirect_uris: words('SIGNED_OUT_URIS'),
      backchannel_logout_uri: process.env.BACK_CHANNEL_URI,
      backchannel_logout_session_required: true,
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
    }, {
      client_id: 'ci',
      client_secret: process.env.CLIENT_SECRET,
      redirect_uris: [],
      grant_types: ['client_credentials'],
      response_types: [],
    }],
    // Every name below `localhost` is this machine, whatever its resolver says.
    httpOptions: () => ({ dnsLookup: (host, options, done) => lookup(host.endsWith('.localhost') ? '127.0.0.1' : host, options, done) }),
    claims: { openid: ['sub'], profile: ['name'], email: ['email', 'email_verified'], groups: ['groups'] },
    scopes: ['openid', 'offline_access', 'profile', 'email', 'groups'],
    conformIdTokenClaims: false,
    cookies: { keys: ['for tests alone'] },
    findAccount,
    loadExistingGrant,
    issueRefreshToken: async () => true,
    interactions: { policy, url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    pkce: { required: () => true },
    features: {
      devInteractions: { enabled: false },
      revocation: { enabled: true },
      backchannelLogout: { enabled: true },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: (_ctx, client) => (client.clientId === 'ci' ? 'urn:gateway' : undefined),
        getResourceServerInfo: () => ({ scope: '', audience: 'gateway', accessTokenFormat: 'jwt' }),
      },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (ctx, form) => {
          ctx.body = page(`${form}<button autofocus type="submit" form="op.logoutForm" value="yes" name="logout">Sign out</button>`);
        },
      },
    },
    ttl: { AccessToken: Number(process.env.ACCESS_TOKEN_SECONDS ?? 600), IdToken: 600, RefreshToken: 3600, Session: 3600, Grant: 3600, Interaction: 600 },
  };
}

async function text(request) {
  let body = '';
  for await (const chunk of request) {
    body += chunk;
    if (body.length > 65536) throw new Error('the body is too long');
  }
  return body;
}

async function change(request, response) {
  const person = PEOPLE[request.url.split('/')[2]];
  if (request.method !== 'POST' || !person) throw new Error('nobody of this name');
  Object.assign(person, JSON.parse(await text(request)));
  response.end();
}

async function interaction(provider, request, response) {
  const { uid, prompt, grantId } = await provider.interactionDetails(request, response);
  if (prompt.name === 'consent') {
    await provider.interactionFinished(request, response, { consent: { grantId } }, { mergeWithLastSubmission: true });
    return;
  }
  if (request.method === 'POST') {
    const login = new URLSearchParams(await text(request)).get('login');
    if (PEOPLE[login]) {
      await provider.interactionFinished(request, response, { login: { accountId: login } });
      return;
    }
  }
  response.setHeader('Content-Type', 'text/html; charset=utf-8');
  response.end(page(`<form method="post" action="/interaction/${uid}"><label>User name
    <input type="text" name="login" autofocus required></label><button type="submit">Sign in</button></form>`));
}

const server = createServer();
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration());
  for (const event of ['authorization.error', 'grant.error', 'server_error', 'userinfo.error', 'end_session.error', 'backchannel.error']) {
    provider.on(event, (_ctx, error) => console.error(event, error.message, error.error_description ?? ''));
  }
  provider.on('grant.success', (ctx) => console.log(`granted ${ctx.oidc.params.grant_type}`));
  const answer = provider.callback();
  server.on('request', (request, response) => {
    const own = request.url.startsWith('/interaction/') ? interaction(provider, request, response)
      : request.url.startsWith('/people/') ? change(request, response) : undefined;
    if (!own) {
      answer(request, response);
      return;
    }
    own.catch((error) => {
      console.error(request.url, error);
      response.statusCode = 400;
      response.end(String(error.message));
    });
  });
  console.log(`issuer ${issuer}`);
});
