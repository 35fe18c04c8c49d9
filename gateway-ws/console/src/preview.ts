/** Content as one line of text. */

import type { Content } from "../../../sdk/typescript/src/index.js";

export function contentText(content: Content): string {
  switch (content.type) {
    case "text":
      return content.text;
    case "json":
      return JSON.stringify(content.data);
    case "bytes":
      return `${content.bytes.length} bytes`;
    case "notice":
      return content.notice.type;
  }
}

/** Of a message that somebody may have deleted. */
export function previewText(content: Content, redacted: boolean): string {
  return redacted ? "Deleted message" : contentText(content).replace(/\s+/g, " ");
}
