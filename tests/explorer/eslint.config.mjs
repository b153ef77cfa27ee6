// Rules for the scripts of the page: ESLint's recommended ones, and a few that catch mistakes tsc does not.
import js from "@eslint/js";

const browser = [
  "Blob", "DecompressionStream", "Response", "TextDecoder", "TextEncoder", "atob", "cancelAnimationFrame", "clearTimeout", "console",
  "document", "getComputedStyle", "history", "location", "matchMedia", "performance", "requestAnimationFrame",
  "setTimeout", "window",
];

export default [
  js.configs.recommended,
  {
    files: ["**/page/**/*.js"],
    languageOptions: {
      ecmaVersion: 2022,
      sourceType: "script",
      globals: Object.fromEntries([...browser, "Bevia"].map((name) => [name, "readonly"])),
    },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "eqeqeq": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-shadow": "error",
      "no-var": "error",
      "no-unused-vars": ["error", { varsIgnorePattern: "^Bevia$" }],
      "no-redeclare": ["error", { builtinGlobals: false }],
      "prefer-const": "error",
      "strict": ["error", "global"],
    },
  },
];
