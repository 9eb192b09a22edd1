"""What users read: report.json and its page, pictures of anomaly maps, the folder of predictions."""
