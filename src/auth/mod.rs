//! Tokens, keys and API keys.
