// What receivers verify with: the vendors' own packages, called as their documentation says, and Node's crypto where
// a scheme has no package.
//
// Each entry takes the receiver's secret and makes a function that takes a request ({req, res, method, headers, body},
// body as a Buffer). It returns what the package understood, or nothing; it throws when the package refuses.
import { createHmac, createPublicKey, timingSafeEqual, verify as verifyWithKey } from 'node:crypto'
import { finished } from 'node:stream/promises'

import { verify as verifyGitHub } from '@octokit/webhooks-methods'
import '@shopify/shopify-api/adapters/node'
import { LogSeverity, shopifyApi } from '@shopify/shopify-api'
import bolt from '@slack/bolt'
import { HTTP } from 'cloudevents'
import { Webhook as StandardWebhook } from 'standardwebhooks'
import Stripe from 'stripe'
import { Webhook as SvixWebhook } from 'svix'

export const verifiers = {
  // Any of several signatures will do: two secrets are valid while one replaces the other.
  'sha256': secret => ({ headers, body }) => {
    const sum = createHmac('sha256', secret).update(body).digest()
    demand(headers['x-webhook-signature'].split(', ').some(text => {
      const given = Buffer.from(text.replace('sha256=', ''), 'hex')
      return given.length === sum.length && timingSafeEqual(given, sum)
    }))
  },

  'standardwebhooks': secret => ({ headers, body }) => { new StandardWebhook(secret).verify(body, headers) },

  'svix': secret => ({ headers, body }) => { new SvixWebhook(secret).verify(body, headers) },

  // Standard Webhooks 1.0.0, "Signature scheme", for v1a, which neither package verifies. The secret is the public key.
  'ed25519': secret => {
    const x = Buffer.from(secret.replace('whpk_', ''), 'base64').toString('base64url')
    const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
    return ({ headers, body }) => {
      const content = Buffer.concat([Buffer.from(`${headers['webhook-id']}.${headers['webhook-timestamp']}.`), body])
      demand(headers['webhook-signature'].split(' ').some(text => {
        const [version, signature] = text.split(',')
        return version === 'v1a' && verifyWithKey(null, content, key, Buffer.from(signature, 'base64'))
      }))
    }
  },

  'stripe': secret => ({ headers, body }) => { Stripe.webhooks.constructEvent(body, headers['stripe-signature'], secret) },

  '@octokit/webhooks-methods': secret => async ({ headers, body }) => {
    demand(await verifyGitHub(secret, body.toString(), headers['x-hub-signature-256']))
  },

  '@shopify/shopify-api': secret => {
    const shopify = shopifyApi({
      apiKey: 'unused', apiSecretKey: secret, hostName: 'receiver.example', apiVersion: 'unstable', isEmbeddedApp: false,
      logger: { level: LogSeverity.Error },
    })
    return async ({ req, res, body }) => {
      const { valid, ...rest } = await shopify.webhooks.validate({ rawBody: body.toString(), rawRequest: req, rawResponse: res })
      demand(valid, JSON.stringify(rest))
    }
  },

  'verifySlackRequest': secret => ({ headers, body }) => {
    bolt.verifySlackRequest({ signingSecret: secret, body: body.toString(), headers })
  },

  // A whole app of Slack's framework. It answers by itself, also the challenge.
  '@slack/bolt': secret => {
    const logLevel = bolt.LogLevel.ERROR
    const receiver = new bolt.ExpressReceiver({
      signingSecret: secret, endpoints: '/{*receiver}', processBeforeResponse: true, logLevel,
    })
    const app = new bolt.App({ receiver, authorize: async () => ({ botId: 'B1', botToken: 'unused' }), logLevel })
    let mention
    app.event('app_mention', async ({ event }) => { mention = event })
    return async ({ req, res, body }) => {
      req.rawBody = body // where Bolt looks for what has been read already
      receiver.app(req, res)
      await finished(res)
      demand(res.statusCode === 200, `Bolt answered ${res.statusCode}`)
      return mention
    }
  },

  // CloudEvents in all modes, and the consent that their senders ask for (HTTP 1.1 Web Hooks, section 4).
  'cloudevents': () => ({ method, headers, body, res }) => {
    if (method === 'OPTIONS') {
      res.setHeader('Allow', 'POST')
      res.setHeader('WebHook-Allowed-Origin', headers['webhook-request-origin'])
      res.setHeader('WebHook-Allowed-Rate', '1200')
      return
    }
    const events = [HTTP.toEvent({ headers, body: body.toString() })].flat() // one, or those of a batch
    for (const event of events) event.validate() // toEvent is lenient
    return events
  },
}

function demand(valid, reason = 'the signature is wrong') {
  if (!valid) throw new Error(reason)
}
