"""Messages about consumer groups and their offsets."""

TEXT = """
request 8 OffsetCommit 8
  group_id string
  generation_id_or_member_epoch int32 1+ = -1
  member_id string 1+
  group_instance_id string 7+ null 7+
  retention_time_ms int64 2-4 = -1
  topics []
    name string
    partitions []
      partition_index int32
      committed_offset int64
      committed_leader_epoch int32 6+ = -1
      committed_metadata string 0+ null 0+
response 8 OffsetCommit 8
  throttle_time_ms int32 3+
  topics []
    name string
    partitions []
      partition_index int32
      error_code int16
request 9 OffsetFetch 6
  group_id string 0-7
  topics [] 0-7 null 2-7
    name string
    partition_indexes int32[]
  groups [] 8+
    group_id string
    member_id string 9+ null 9+
    member_epoch int32 9+ = -1
    topics [] 8+ null 8+
      name string
      partition_indexes int32[]
  require_stable bool 7+
response 9 OffsetFetch 6
  throttle_time_ms int32 3+
  topics [] 0-7
    name string
    partitions []
      partition_index int32
      committed_offset int64
      committed_leader_epoch int32 5+ = -1
      metadata string 0+ null 0+
      error_code int16
  error_code int16 2-7
  groups [] 8+
    group_id string
    topics []
      name string
      partitions []
        partition_index int32
        committed_offset int64
        committed_leader_epoch int32 5+ = -1
        metadata string 0+ null 0+
        error_code int16
    error_code int16
request 11 JoinGroup 6
  group_id string
  session_timeout_ms int32
  rebalance_timeout_ms int32 1+ = -1
  member_id string
  group_instance_id string 5+ null 5+
  protocol_type string
  protocols []
    name string
    metadata bytes
  reason string 8+ null 8+
response 11 JoinGroup 6
  throttle_time_ms int32 2+
  error_code int16
  generation_id int32 0+ = -1
  protocol_type string 7+ null 7+
  protocol_name string 0+ null 7+
  leader string
  skip_assignment bool 9+
  member_id string
  members []
    member_id string
    group_instance_id string 5+ null 5+
    metadata bytes
request 12 Heartbeat 4
  group_id string
  generation_id int32
  member_id string
  group_instance_id string 3+ null 3+
response 12 Heartbeat 4
  throttle_time_ms int32 1+
  error_code int16
request 13 LeaveGroup 4
  group_id string
  member_id string 0-2
  members [] 3+
    member_id string
    group_instance_id string 3+ null 3+
    reason string 5+ null 5+
response 13 LeaveGroup 4
  throttle_time_ms int32 1+
  error_code int16
  members [] 3+
    member_id string
    group_instance_id string 3+ null 3+
    error_code int16
request 14 SyncGroup 4
  group_id string
  generation_id int32
  member_id string
  group_instance_id string 3+ null 3+
  protocol_type string 5+ null 5+
  protocol_name string 5+ null 5+
  assignments []
    member_id string
    assignment bytes
response 14 SyncGroup 4
  throttle_time_ms int32 1+
  error_code int16
  protocol_type string 5+ null 5+
  protocol_name string 5+ null 5+
  assignment bytes
request 15 DescribeGroups 5
  groups string[]
  include_authorized_operations bool 3+
response 15 DescribeGroups 5
  throttle_time_ms int32 1+
  groups []
    error_code int16
    error_message string 6+ null 6+
    group_id string
    group_state string
    protocol_type string
    protocol_data string
    members []
      member_id string
      group_instance_id string 4+ null 4+
      client_id string
      client_host string
      member_metadata bytes
      member_assignment bytes
    authorized_operations int32 3+ = -2147483648
request 16 ListGroups 3
  states_filter string[] 4+
  types_filter string[] 5+
response 16 ListGroups 3
  throttle_time_ms int32 1+
  error_code int16
  groups []
    group_id string
    protocol_type string
    group_state string 4+
    group_type string 5+
request 42 DeleteGroups 2
  groups_names string[]
response 42 DeleteGroups 2
  throttle_time_ms int32
  results []
    group_id string
    error_code int16
request 47 OffsetDelete 99
  group_id string
  topics []
    name string
    partitions []
      partition_index int32
response 47 OffsetDelete 99
  error_code int16
  throttle_time_ms int32
  topics []
    name string
    partitions []
      partition_index int32
      error_code int16
"""
