// Payload with the platform's collection, driven by lines of JSON on stdin: {"call": "find", "options": {…}}.
// Each is answered by one line, {"value": …} or {"error": …}. The first line of all says that it is ready.
import { createInterface } from 'node:readline'

import { mongooseAdapter } from '@payloadcms/db-mongodb'
import { buildConfig, getPayload } from 'payload'

const [url] = process.argv.slice(2)
const anybody = () => true

const jobs = {
  slug: 'queue-jobs',
  access: { read: anybody, create: anybody, update: anybody, delete: ({ req }) => req.user?.role === 'admin' },
  timestamps: true,
  fields: [
    { name: 'jobId', type: 'text', required: true, unique: true },
    {
      name: 'queueName',
      type: 'select',
      required: true,
      options: ['ai-generation', 'media-processing', 'video-assembly', 'webhook'],
    },
    {
      name: 'status',
      type: 'select',
      required: true,
      defaultValue: 'queued',
      options: ['queued', 'processing', 'completed', 'failed', 'cancelled'],
    },
    { name: 'jobData', type: 'json', required: true },
    { name: 'result', type: 'json' },
    { name: 'error', type: 'textarea' },
    { name: 'projectId', type: 'relationship', relationTo: 'projects' },
  ],
}
const projects = { slug: 'projects', access: { read: anybody, create: anybody }, fields: [{ name: 'title', type: 'text' }] }

const config = buildConfig({
  collections: [jobs, projects],
  db: mongooseAdapter({ url, transactionOptions: false }), // the tests' server is no replica set
  secret: 'of a test',
  telemetry: false,
  typescript: { autoGenerate: false },
  logger: { options: { level: 'error' }, destination: process.stderr }, // stdout is for the answers
})
const payload = await getPayload({ config })
await payload.db.collections['queue-jobs'].ensureIndexes()

const say = (answer) => console.log(JSON.stringify(answer))
say({ value: 'ready' })
for await (const line of createInterface({ input: process.stdin })) {
  const { call, options } = JSON.parse(line)
  try {
    say({ value: await payload[call]({ overrideAccess: false, ...options }) })
  } catch (error) {
    say({ error: `${error.name}: ${error.message}` })
  }
}
process.exit(0)
