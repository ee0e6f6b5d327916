// Receivers of webhooks: one server on a free loopback port, whose URL is the first line on the standard output, and a
// path for each receiver.
//
//	PUT /name {"verifier", "secret", "clock", "holds"}
//	    makes the receiver, or changes what is given. clock: the time that it has, in seconds since 1970; holds: it
//	    answers nothing yet
//	GET /name?arrived=N  or  /name?answered=N
//	    waits for N requests and lists all: {method, headers, body (base64), status (0: not answered), error, understood}
//
// Every other request is a webhook: 200 if the verifier accepts it, 401 if not.
import { once, EventEmitter } from 'node:events'
import http from 'node:http'
import { buffer } from 'node:stream/consumers'

import { verifiers } from './verifiers.mjs'

const receivers = new Map()

class Receiver extends EventEmitter {
  requests = []

  set({ verifier, secret, ...rest }) {
    if (verifier) this.verify = verifiers[verifier](secret)
    Object.assign(this, rest)
    this.emit('change')
  }

  async until(condition) {
    while (!condition()) await once(this, 'change')
  }

  async receive(req, res, body) {
    const { method, headers } = req
    const record = { method, headers, body: body.toString('base64'), status: 0 }
    this.requests.push(record)
    this.emit('change')
    await this.until(() => !this.holds)
    try {
      record.understood = await atClock(this.clock, () => this.verify({ req, res, method, headers, body }))
      record.status = 200
    } catch (error) {
      record.error = String(error)
      record.status = 401
    }
    if (!res.writableEnded) res.writeHead(record.status).end()
    this.emit('change')
  }

  async list(query) {
    const [arrived, answered] = ['arrived', 'answered'].map(name => Number(query.get(name)))
    await this.until(() => this.requests.length >= arrived && this.requests.filter(r => r.status).length >= answered)
    return JSON.stringify(this.requests)
  }
}

// atClock calls f while Date.now tells that time. Verifiers look at it before they wait for anything.
function atClock(seconds, f) {
  if (!seconds) return f()
  const { now } = Date
  Date.now = () => seconds * 1000
  try {
    return f()
  } finally {
    Date.now = now
  }
}

async function handle(req, res) {
  const url = new URL(req.url, 'http://receiver')
  if (!receivers.has(url.pathname)) receivers.set(url.pathname, new Receiver().setMaxListeners(0))
  const receiver = receivers.get(url.pathname)
  const body = await buffer(req)
  if (req.method === 'PUT') {
    receiver.set(JSON.parse(body))
    res.end()
  } else if (req.method === 'GET') {
    res.end(await receiver.list(url.searchParams))
  } else {
    await receiver.receive(req, res, body)
  }
}

const server = http.createServer((req, res) => {
  handle(req, res).catch(error => {
    console.error(error)
    res.destroy()
  })
})
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`))
