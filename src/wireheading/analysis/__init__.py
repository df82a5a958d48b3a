"""From records to tables, from tables to estimates and verdicts, from those to figures and pages."""
