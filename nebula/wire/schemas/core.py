"""Messages of the calls Nebula serves."""

TEXT = """
request 18 ApiVersions 3
  client_software_name string 3+
  client_software_version string 3+
response 18 ApiVersions 3
  error_code int16
  api_keys []
    api_key int16
    min_version int16
    max_version int16
  throttle_time_ms int32 1+
request 3 Metadata 9
  topics [] 0+ null 1+
    topic_id uuid 10+
    name string 0+ null 10+
  allow_auto_topic_creation bool 4+ = 1
  include_cluster_authorized_operations bool 8-10
  include_topic_authorized_operations bool 8+
response 3 Metadata 9
  throttle_time_ms int32 3+
  brokers []
    node_id int32
    host string
    port int32
    rack string 1+ null 1+
  cluster_id string 2+ null 2+
  controller_id int32 1+ = -1
  topics []
    error_code int16
    name string 0+ null 12+
    topic_id uuid 10+
    is_internal bool 1+
    partitions []
      error_code int16
      partition_index int32
      leader_id int32
      leader_epoch int32 7+ = -1
      replica_nodes int32[]
      isr_nodes int32[]
      offline_replicas int32[] 5+
    topic_authorized_operations int32 8+ = -2147483648
  cluster_authorized_operations int32 8-10 = -2147483648
request 0 Produce 9
  transactional_id string 3+ null 3+
  acks int16
  timeout_ms int32
  topic_data []
    name string
    partition_data []
      index int32
      records records 0+ null 0+
response 0 Produce 9
  responses []
    name string
    partition_responses []
      index int32
      error_code int16
      base_offset int64 = -1
      log_append_time_ms int64 2+ = -1
      log_start_offset int64 5+ = -1
      record_errors [] 8+
        batch_index int32
        batch_index_error_message string 8+ null 8+
      error_message string 8+ null 8+
      current_leader {} 10+ tag 0 10+
        leader_id int32 = -1
        leader_epoch int32 = -1
  throttle_time_ms int32 1+
  node_endpoints [] 10+ tag 0 10+
    node_id int32
    host string
    port int32
    rack string 10+ null 10+
request 1 Fetch 12
  cluster_id string 12+ null 12+ tag 0 12+
  replica_id int32 0-14 = -1
  replica_state {} 15+ tag 1 15+
    replica_id int32 = -1
    replica_epoch int64 = -1
  max_wait_ms int32
  min_bytes int32
  max_bytes int32 3+ = 2147483647
  isolation_level int8 4+
  session_id int32 7+
  session_epoch int32 7+ = -1
  topics []
    topic string 0-12
    topic_id uuid 13+
    partitions []
      partition int32
      current_leader_epoch int32 9+ = -1
      fetch_offset int64
      last_fetched_epoch int32 12+ = -1
      log_start_offset int64 5+ = -1
      partition_max_bytes int32
  forgotten_topics_data [] 7+
    topic string 7-12
    topic_id uuid 13+
    partitions int32[]
  rack_id string 11+
response 1 Fetch 12
  throttle_time_ms int32 1+
  error_code int16 7+
  session_id int32 7+
  responses []
    topic string 0-12
    topic_id uuid 13+
    partitions []
      partition_index int32
      error_code int16
      high_watermark int64
      last_stable_offset int64 4+ = -1
      log_start_offset int64 5+ = -1
      diverging_epoch {} 12+ tag 0 12+
        epoch int32 = -1
        end_offset int64 = -1
      current_leader {} 12+ tag 1 12+
        leader_id int32 = -1
        leader_epoch int32 = -1
      aborted_transactions [] 4+ null 4+
        producer_id int64
        first_offset int64
      preferred_read_replica int32 11+ = -1
      records records 0+ null 0+
  node_endpoints [] 16+ tag 0 16+
    node_id int32
    host string
    port int32
    rack string 16+ null 16+
request 2 ListOffsets 6
  replica_id int32 = -1
  isolation_level int8 2+
  topics []
    name string
    partitions []
      partition_index int32
      current_leader_epoch int32 4+ = -1
      timestamp int64
response 2 ListOffsets 6
  throttle_time_ms int32 2+
  topics []
    name string
    partitions []
      partition_index int32
      error_code int16
      timestamp int64 1+ = -1
      offset int64 1+ = -1
      leader_epoch int32 4+ = -1
request 10 FindCoordinator 3
  key string 0-3
  key_type int8 1+
  coordinator_keys string[] 4+
response 10 FindCoordinator 3
  throttle_time_ms int32 1+
  error_code int16 0-3
  error_message string 1-3 null 1-3
  node_id int32 0-3
  host string 0-3
  port int32 0-3
  coordinators [] 4+
    key string
    node_id int32
    host string
    port int32
    error_code int16
    error_message string 4+ null 4+
request 22 InitProducerId 2
  transactional_id string 0+ null 0+
  transaction_timeout_ms int32
  producer_id int64 3+ = -1
  producer_epoch int16 3+ = -1
response 22 InitProducerId 2
  throttle_time_ms int32
  error_code int16
  producer_id int64 = -1
  producer_epoch int16
request 23 OffsetForLeaderEpoch 4
  replica_id int32 3+ = -2
  topics []
    topic string
    partitions []
      partition int32
      current_leader_epoch int32 2+ = -1
      leader_epoch int32
response 23 OffsetForLeaderEpoch 4
  throttle_time_ms int32 2+
  topics []
    topic string
    partitions []
      error_code int16
      partition int32
      leader_epoch int32 1+ = -1
      end_offset int64 = -1
request 19 CreateTopics 5
  topics []
    name string
    num_partitions int32
    replication_factor int16
    assignments []
      partition_index int32
      broker_ids int32[]
    configs []
      name string
      value string 0+ null 0+
  timeout_ms int32
  validate_only bool 1+
response 19 CreateTopics 5
  throttle_time_ms int32 2+
  topics []
    name string
    topic_id uuid 7+
    error_code int16
    error_message string 1+ null 0+
    topic_config_error_code int16 5+ tag 0 5+
    num_partitions int32 5+ = -1
    replication_factor int16 5+ = -1
    configs [] 5+ null 5+
      name string
      value string 5+ null 5+
      read_only bool
      config_source int8 = -1
      is_sensitive bool
request 20 DeleteTopics 4
  topics [] 6+
    name string 6+ null 6+
    topic_id uuid
  topic_names string[] 0-5
  timeout_ms int32
response 20 DeleteTopics 4
  throttle_time_ms int32 1+
  responses []
    name string 0+ null 6+
    topic_id uuid 6+
    error_code int16
    error_message string 5+ null 5+
request 60 DescribeCluster 0
  include_cluster_authorized_operations bool
  endpoint_type int8 1+ = 1
response 60 DescribeCluster 0
  throttle_time_ms int32
  error_code int16
  error_message string 0+ null 0+
  endpoint_type int8 1+ = 1
  cluster_id string
  controller_id int32 = -1
  brokers []
    broker_id int32
    host string
    port int32
    rack string 0+ null 0+
  cluster_authorized_operations int32 = -2147483648
request 32 DescribeConfigs 4
  resources []
    resource_type int8
    resource_name string
    configuration_keys string[] 0+ null 0+
  include_synonyms bool 1+
  include_documentation bool 3+
response 32 DescribeConfigs 4
  throttle_time_ms int32
  results []
    error_code int16
    error_message string 0+ null 0+
    resource_type int8
    resource_name string
    configs []
      name string
      value string 0+ null 0+
      read_only bool
      is_default bool 0
      config_source int8 1+ = -1
      is_sensitive bool
      synonyms [] 1+
        name string
        value string 0+ null 0+
        source int8
      config_type int8 3+
      documentation string 3+ null 3+
"""
