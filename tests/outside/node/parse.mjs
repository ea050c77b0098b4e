// Parses every .eml of a folder with mailparser and prints what it found as JSON, by file name.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { simpleParser } from "mailparser";

const folder = process.argv[2];
const found = {};
for (const name of readdirSync(folder).filter((file) => file.endsWith(".eml")).sort()) {
  const mail = await simpleParser(readFileSync(join(folder, name)), { skipTextToHtml: true });
  const list = mail.headers.get("list") ?? {};
  found[name] = {
    subject: mail.subject ?? null,
    from: mail.from?.value ?? [],
    to: mail.to?.value ?? [],
    date: mail.date ?? null,
    messageId: mail.messageId ?? null,
    text: mail.text ?? null,
    html: mail.html || null,
    attachments: mail.attachments.map(({ filename, contentType, cid, related, size }) => ({ filename, contentType, cid, related, size })),
    unsubscribe: list.unsubscribe ?? null,
    unsubscribePost: list["unsubscribe-post"] ?? null,
    listId: list.id ?? null,
  };
}
process.stdout.write(JSON.stringify(found));
