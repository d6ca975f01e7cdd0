"""From a configuration to splits, concept banks, class texts and stored models."""
