// An SMSC by the npm package `smpp`: tells on its output what it reads, one JSON object a line, and takes orders on its input.
// What it answers is the message's first word: throttle (once for each text), refuse, silent, drop; anything else is accepted.
import { createInterface } from 'node:readline';
import smpp from 'smpp';

const say = (what) => process.stdout.write(JSON.stringify(what) + '\n');
const throttled = new Set();
const sessions = new Set();
let nextId = 0x1a2b3c;

const server = smpp.createServer((session) => {
  for (const kind of ['transceiver', 'transmitter', 'receiver']) {
    session.on(`bind_${kind}`, (pdu) => {
      const wrong = pdu.password !== 'secret';
      session.send(pdu.response({ command_status: wrong ? smpp.ESME_RINVPASWD : 0 }));
      say({ bound: kind, as: pdu.system_id, wrong });
      if (!wrong && kind !== 'transmitter') sessions.add(session);
    });
  }
  session.on('submit_sm', (pdu) => {
    const { udh, message } = pdu.short_message;
    say({
      submit: message, udh: udh ? udh.map((element) => element.toString('hex')) : [], coding: pdu.data_coding,
      to: pdu.destination_addr, from: pdu.source_addr, ton: pdu.source_addr_ton, registered: pdu.registered_delivery,
      validity: pdu.validity_period,
    });
    const word = message.split(' ')[0];
    if (word === 'silent') return;
    if (word === 'drop') { session.destroy(); return; }
    if (word === 'refuse') { session.send(pdu.response({ command_status: smpp.ESME_RINVDSTADR })); return; }
    if (word === 'throttle' && !throttled.has(message)) {
      throttled.add(message);
      session.send(pdu.response({ command_status: smpp.ESME_RTHROTTLED }));
      return;
    }
    session.send(pdu.response({ message_id: (nextId++).toString(16).toUpperCase() }));
  });
  session.on('enquire_link', (pdu) => { session.send(pdu.response()); say({ enquired: true }); });
  session.on('unbind', (pdu) => { session.send(pdu.response()); session.close(); say({ unbound: true }); });
  session.on('close', () => sessions.delete(session));
  session.on('error', (error) => { sessions.delete(session); say({ error: String(error) }); });
});
server.listen(0, '127.0.0.1', () => say({ port: server.address().port }));

createInterface({ input: process.stdin }).on('line', (line) => {
  const { deliver } = JSON.parse(line);
  const [session] = sessions;
  session.deliver_sm(deliver, (pdu) => say({ delivered: pdu.command_status }));
}).on('close', () => process.exit(0));
