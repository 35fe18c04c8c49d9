/** What only Node can do. */

export { fileStorage } from "./storage/file.js";
