// Submits a workflow and follows it, with types that are generated from openapi.json:
//
//     npm install && npm run generate && npm run build
//     KNOCKEM_URL=http://127.0.0.1:3001 KNOCKEM_TOKEN=knockem_... npm start
import createClient from "openapi-fetch";
import type { paths } from "./knockem.js";

const client = createClient<paths>({
  baseUrl: process.env.KNOCKEM_URL,
  headers: { Authorization: `Bearer ${process.env.KNOCKEM_TOKEN}` },
});

const made = await client.POST("/v1/workflows", {
  params: { query: { folder: process.cwd() } },
  body: {
    name: "from TypeScript",
    jobs: [
      { name: "prepare", command: "echo 7 > seed.txt" },
      { name: "use", command: "cat seed.txt", depends_on: ["prepare"] },
    ],
  },
});
if (made.error) throw new Error(`${made.error.detail} ${JSON.stringify(made.error.faults)}`);

const params = { path: { workflow: made.data.id } };
let seen = made.data;
while (seen.state === "running") {
  await new Promise((done) => setTimeout(done, 500));
  const answer = await client.GET("/v1/workflows/{workflow}", { params });
  if (answer.error) throw new Error(answer.error.detail);
  seen = answer.data;
}
console.log(seen.state, JSON.stringify(seen.jobs));

const jobs = await client.GET("/v1/workflows/{workflow}/jobs", { params });
for (const { job, state, result } of jobs.data?.items ?? []) console.log(job.name, state, result?.exitCode);
