// A host in Node, made from the protos alone: calls a channel and prints what it got as JSON.
//
//   node client.js ADDRESS PROTOS USER SECONDS      SECONDS: the moment it is, Unix time
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [address, protos, user, seconds] = process.argv.slice(2);
const definition = loader.loadSync('serendipity/v1/channel.proto', {
  includeDirs: [protos],
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
});
const { SerendipityChannel } = grpc.loadPackageDefinition(definition).serendipity.v1;
const channel = new SerendipityChannel(address, grpc.credentials.createInsecure(), {
  // A connection of its own: clients of one process share one per address otherwise, and so reach one worker only.
  'grpc.use_local_subchannel_pool': 1,
});

function call(method, request) {
  return new Promise((resolve, reject) => {
    channel[method](request, { deadline: Date.now() + 60_000 }, (error, answer) =>
      error ? reject(error) : resolve(answer));
  });
}

async function main() {
  const { categories, snapshot } = await call('ListCategories', {});
  const recalled = await call('Recall', { user_id: user, count: 20, explain: true });
  const clicked = recalled.item_ids[0];
  const click = { item_id: clicked, type: 'EVENT_TYPE_CLICK', time: { seconds, nanos: 5 } };
  const hot = await call('Recall', { user_id: user, count: 20, recent_events: [click] });
  const recorded = await call('RecordFeedback', {
    events: [{ ...click, event_id: 'one', user_id: user, recall_id: recalled.recall_id }],
  });
  const denied = recalled.categories[recalled.category_indexes[1]];
  const batch = await call('RecallBatch', {
    requests: [
      { user_id: user, count: 20, deny_categories: [denied] },
      { user_id: 'nobody has seen', count: 5, allow_categories: [denied] },
    ],
  });
  const refused = await call('Recall', { user_id: '', count: 1 }).catch((error) => error);
  channel.close();
  console.log(JSON.stringify({
    categories,
    snapshot,
    recalled,
    clicked: recalled.categories[recalled.category_indexes[0]],
    hot,
    recorded,
    denied,
    batch,
    refused: { code: refused.code, details: refused.details, request_id: refused.metadata.get('x-request-id') },
  }));
}

main();
